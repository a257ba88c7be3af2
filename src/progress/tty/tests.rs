//! What a terminal shows of the view, seen through one that knows the five sequences it needs.

use super::super::renderer::testing::{Stage, summary};
use super::*;

/// A terminal of unlimited height that keeps what was printed as rows.
#[derive(Default)]
struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The sequences that change how the terminal works, in the order in which they came.
    modes: Vec<String>,
}

impl Screen {
    fn print(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let mut sequence: String = String::new();
                    while !sequence.ends_with(|c: char| c.is_ascii_alphabetic()) {
                        sequence.push(chars.next().unwrap());
                    }
                    self.control(&sequence);
                }
                '\r' => self.column = 0,
                '\n' => (self.row, self.column) = (self.row + 1, 0),
                c => self.put(c),
            }
        }
    }

    fn control(&mut self, sequence: &str) {
        let (argument, function) = sequence.split_at(sequence.len() - 1);
        match function {
            "A" => self.row = self.row.checked_sub(argument.parse().unwrap()).unwrap(),
            "K" => self.erase_line(),
            "J" => {
                self.erase_line();
                self.rows.truncate(self.row + 1);
            }
            "m" => {}
            "h" | "l" => self.modes.push(sequence.to_owned()),
            _ => panic!("unknown sequence {sequence:?}"),
        }
    }

    fn erase_line(&mut self) {
        let column = self.column;
        self.row().truncate(column);
    }

    fn row(&mut self) -> &mut Vec<char> {
        let wanted = self.rows.len().max(self.row + 1);
        self.rows.resize(wanted, Vec::new());
        &mut self.rows[self.row]
    }

    fn put(&mut self, c: char) {
        let column = self.column;
        let row = self.row();
        let wanted = row.len().max(column + 1);
        row.resize(wanted, ' ');
        row[column] = c;
        self.column += 1;
    }

    /// Returns what is seen.
    fn text(&self) -> String {
        let rows = self.rows.iter().map(|row| row.iter().collect::<String>());
        rows.map(|row| row.trim_end().to_owned() + "\n").collect::<String>().trim_end().to_owned()
    }
}

/// A view and the screen on which it is drawn.
struct Theatre {
    stage: Stage<Tty>,
    screen: Screen,
}

impl Theatre {
    fn new(rows: usize, columns: usize) -> Theatre {
        let view = Tty::new(true, Box::new(move || Size { rows, columns }));
        Theatre { stage: Stage::new(view), screen: Screen::default() }
    }

    /// Lets the view draw, and returns what is seen.
    fn seen(&mut self, ms: u64) -> String {
        self.stage.tick(ms);
        self.screen.print(&std::mem::take(&mut self.stage.out));
        self.screen.text()
    }

    /// Ends the view, and returns what is seen.
    fn finished(&mut self, ms: u64, ending: Ending, text: &str) -> String {
        self.stage.finish(ms, &summary(ending, text));
        self.screen.print(&std::mem::take(&mut self.stage.out));
        self.screen.text()
    }
}

/// A build in its middle: a cached step, one that is done, two that run.
fn middle(rows: usize, columns: usize) -> Theatre {
    let mut theatre = Theatre::new(rows, columns);
    let stage = &mut theatre.stage;
    stage.begin(0, 1, "[build 1/3] FROM docker.io/library/alpine");
    stage.end(100, 1, &StepEnd::Cached, 0);
    stage.begin(100, 2, "[build 2/3] COPY . /src");
    stage.end(400, 2, &StepEnd::Done, 300);
    stage.begin(400, 3, "[build 3/3] RUN make");
    stage.begin(500, 4, "[docs 2/2] RUN curl example.com");
    for number in 1..=8 {
        stage.stdout(1000, 3, format!("cc -c\t{number}.c\n"));
    }
    stage.stdout(1500, 4, "\x1b[2J10%\r20%");
    stage.status(1500, 4, "waiting for a connection");
    theatre
}

#[test]
fn draws_a_build() {
    let mut theatre = middle(24, 50);
    assert_eq!(
        theatre.seen(2900),
        "[+] Building 2.9s (2/4)
 => CACHED [build 1/3] FROM docker.io/library 0.0s
 => [build 2/3] COPY . /src                   0.3s
 => [build 3/3] RUN make                      2.5s
 => => # cc -c   3.c
 => => # cc -c   4.c
 => => # cc -c   5.c
 => => # cc -c   6.c
 => => # cc -c   7.c
 => => # cc -c   8.c
 => [docs 2/2] RUN curl example.com           2.4s
 => => waiting for a connection
 => => # 20%"
    );
    theatre.stage.end(3000, 3, &StepEnd::Done, 2600);
    assert_eq!(
        theatre.seen(3100),
        "[+] Building 3.1s (3/4)
 => CACHED [build 1/3] FROM docker.io/library 0.0s
 => [build 2/3] COPY . /src                   0.3s
 => [build 3/3] RUN make                      2.6s
 => [docs 2/2] RUN curl example.com           2.6s
 => => waiting for a connection
 => => # 20%"
    );
    theatre.stage.end(3200, 4, &StepEnd::Done, 2700);
    assert_eq!(
        theatre.finished(3200, Ending::Done, "built app\n"),
        "[+] Building 3.2s (4/4) FINISHED
 => CACHED [build 1/3] FROM docker.io/library/alpine 0.0s
 => [build 2/3] COPY . /src                   0.3s
 => [build 3/3] RUN make                      2.6s
 => [docs 2/2] RUN curl example.com           2.7s
built app"
    );
}

#[test]
fn gives_few_rows_to_what_matters_most() {
    assert_eq!(
        middle(8, 30).seen(2900),
        "[+] Building 2.9s (2/4)
 => [build 3/3] RUN make  2.5s
 => => # cc -c   7.c
 => => # cc -c   8.c
 => [docs 2/2] RUN curl e 2.4s
 => => waiting for a connectio
 => => # 20%"
    );
    assert_eq!(middle(3, 20).seen(2900), "[+] Building 2.9s (2\n => [docs 2/2]  2.4s");
    assert_eq!(middle(2, 10).seen(2900), "[+] Buildi");
    assert_eq!(middle(1, 80).seen(2900), "");
    assert_eq!(middle(3, 1).seen(2900), "[");
}

#[test]
fn every_picture_fits() {
    for rows in 0..30 {
        for columns in 0..60 {
            let mut theatre = middle(rows, columns);
            theatre.stage.begin(600, 5, "[三 1/1] RUN 日本語のコマンド 🐳🐳🐳🐳🐳🐳🐳🐳🐳🐳🐳🐳");
            theatre.stage.stdout(
                700,
                5,
                "出力です、長い行、長い行、長い行、長い行、長い行、長い行\n",
            );
            let steps = &theatre.stage.renderer.steps;
            let now = std::time::Duration::from_secs(100);
            let picture = picture::live(steps, now, Size { rows, columns });
            assert!(picture.len() <= rows.saturating_sub(1), "{rows} rows");
            assert!(picture.iter().all(|row| text::columns(&row.text) <= columns), "{columns}");
        }
    }
}

#[test]
fn a_failure_shows_the_end_of_its_log() {
    let mut theatre = middle(24, 50);
    theatre.seen(2000);
    for number in 9..=60 {
        theatre.stage.stderr(2000, 3, format!("\x1b[31mline\x1b[0m {number}\n"));
    }
    theatre.stage.end(3000, 3, &StepEnd::Failed("exit code: 2".into()), 2600);
    theatre.stage.end(3001, 4, &StepEnd::Cancelled, 2501);
    let log: String = (11..=60).map(|number| format!("1.600 line {number}\n")).collect();
    assert_eq!(
        theatre.finished(3001, Ending::Failed, ""),
        format!(
            "[+] Building 3.0s (4/4) FAILED
 => CACHED [build 1/3] FROM docker.io/library/alpine 0.0s
 => [build 2/3] COPY . /src                   0.3s
 => ERROR [build 3/3] RUN make                2.6s
 => CANCELED [docs 2/2] RUN curl example.com  2.5s
------
 > [build 3/3] RUN make:
(10 earlier lines are left out)
{log}------"
        )
    );
}

#[test]
fn warnings_stand_above() {
    let mut theatre = Theatre::new(24, 40);
    theatre.stage.tell(0, Event::Warning { text: "warning: one\n  --> 3\n" });
    assert_eq!(theatre.seen(0), "warning: one\n  --> 3");
    theatre.stage.begin(0, 1, "[1/1] RUN make");
    theatre.seen(100);
    theatre.stage.tell(150, Event::Warning { text: "warning: two" });
    assert_eq!(
        theatre.seen(200),
        "warning: one
  --> 3
warning: two
[+] Building 0.2s (0/1)
 => [1/1] RUN make                  0.2s"
    );
    theatre.stage.tell(250, Event::Warning { text: "warning: three" });
    assert_eq!(
        theatre.finished(300, Ending::Cancelled, ""),
        "warning: one
  --> 3
warning: two
warning: three
[+] Building 0.3s (0/1) CANCELED
 => [1/1] RUN make                  0.3s"
    );
}

#[test]
fn each_frame_leaves_the_terminal_as_it_was() {
    let mut theatre = middle(24, 50);
    for ms in (2000..4000).step_by(100) {
        theatre.seen(ms);
        assert_eq!(theatre.screen.modes, ["?25l", "?7l", "?7h", "?25h"]);
        assert_eq!(theatre.screen.column, 0);
        theatre.screen.modes.clear();
    }
    theatre.finished(4000, Ending::Done, "");
    assert!(theatre.screen.modes.is_empty());
}

#[test]
fn colors_can_be_left_out() {
    for (colors, expected) in [(true, "\x1b[34m => CACHED x"), (false, "\n => CACHED x")] {
        let mut stage = Stage::new(Tty::new(colors, Box::new(|| Size { rows: 24, columns: 80 })));
        stage.begin(0, 1, "x");
        stage.end(0, 1, &StepEnd::Cached, 0);
        stage.finish(0, &summary(Ending::Done, ""));
        let printed = stage.printed();
        assert!(printed.contains(expected), "{printed:?}");
        assert_eq!(printed.contains('\x1b'), colors);
    }
}

#[test]
fn a_picture_that_did_not_change_is_not_drawn_again() {
    let mut theatre = middle(24, 50);
    theatre.seen(2000);
    theatre.stage.tick(2001);
    assert_eq!(theatre.stage.printed(), "");
}

#[test]
fn a_storm_costs_no_redraws_and_no_memory() {
    let mut stage = Stage::new(Tty::new(true, Box::new(|| Size { rows: 24, columns: 80 })));
    stage.begin(0, 1, "[1/1] RUN yes");
    let lines = "0123456789012345678901234567890\n".repeat(1024);
    for piece in 0..320 {
        stage.stdout(1, 1, &lines);
        assert!(stage.out.is_empty(), "drawn by output, at piece {piece}");
    }
    stage.stdout(1, 1, "no end ".repeat(1 << 17));
    stage.tick(100);
    let frame = stage.printed();
    assert!(frame.len() < 24 * 100, "a frame of {} bytes", frame.len());
    // The log keeps 50 lines of 8 KiB, and of each stream a line without end.
    assert!(stage.renderer.steps[0].log.memory() <= 2 * 52 * 8192);
}
