"""Results, and how they are shown."""

import statistics


def result(what, who, unit, values, better, note=""):
    """One measurement of one server or tool. The first of a kind is ours."""
    return {
        "what": what,
        "who": who,
        "unit": unit,
        "better": better,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": values,
        "note": note,
    }


def render(results, about):
    """Returns the table; the ratio says how many times better than the peer we are."""
    rows = [("what", "who", "median", "min", "max", "unit", "ours is", "")]
    ours = {}
    for one in results:
        ours.setdefault(one["what"], one)
        first = one is ours[one["what"]]
        figures = [number(one[key]) for key in ("median", "min", "max")]
        ratio = "" if first else f"{times_better(ours[one['what']], one):.2f}x"
        rows.append((one["what"] if first else "", one["who"], *figures, one["unit"], ratio, one["note"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(aligned(cell, width, column) for column, (cell, width)
                       in enumerate(zip(row, widths))).rstrip() for row in rows]
    return "\n".join([", ".join(f"{key}: {value}" for key, value in about.items()), "", *lines])


def aligned(cell, width, column):
    return cell.rjust(width) if 2 <= column <= 4 or column == 6 else cell.ljust(width)


def times_better(ours, theirs):
    if not ours["median"] or not theirs["median"]:
        return float("nan")
    ratio = theirs["median"] / ours["median"]
    return ratio if ours["better"] == "lower" else 1 / ratio


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
