//! Ports of EXPOSE, after expansion: `80`, `53/udp`, `8000-8010`, and what Docker tolerates.

use std::net::IpAddr;

/// The ports that one word declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Each as the image's configuration has it: `80/tcp`.
    pub ports: Vec<String>,
    /// The protocol has capitals: the rule `ExposeProtoCasing`.
    pub protocol_has_capitals: bool,
    /// An address or a port of the host was given: the rule `ExposeInvalidFormat`.
    pub names_host: bool,
}

/// Why a word declares no ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum PortError {
    #[error("`{0}` names no port")]
    NoPort(String),
    #[error("unknown protocol `{0}`")]
    Protocol(String),
    #[error("invalid IP address `{0}`")]
    Address(String),
    #[error("invalid port `{0}`: ports are numbers from 0 to 65535")]
    Port(String),
    #[error("the range `{0}` ends before it begins")]
    Range(String),
    #[error("the ranges `{container}` and `{host}` differ in length")]
    Lengths { container: String, host: String },
}

/// Reads one word of EXPOSE.
///
/// # Errors
///
/// On anything but `[[address:]host:]port[-port][/protocol]`.
pub fn ports(word: &str) -> Result<Ports, PortError> {
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(PortError::NoPort(word.to_owned()));
    }
    let lower = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol.to_owned()));
    }
    check_address(address)?;
    let (start, end) = port_range(range)?;
    if !host.is_empty() {
        let (host_start, host_end) = port_range(host)?;
        if start != end && end - start != host_end - host_start {
            let (container, host) = (range.to_owned(), host.to_owned());
            return Err(PortError::Lengths { container, host });
        }
    }
    Ok(Ports {
        ports: (start..=end).map(|port| format!("{port}/{lower}")).collect(),
        protocol_has_capitals: !protocol.is_empty() && protocol != lower,
        names_host: !host.is_empty() || !address.is_empty(),
    })
}

fn check_address(address: &str) -> Result<(), PortError> {
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let valid = address.is_empty() || bare.unwrap_or(address).parse::<IpAddr>().is_ok();
    if valid { Ok(()) } else { Err(PortError::Address(address.to_owned())) }
}

fn port_range(text: &str) -> Result<(u16, u16), PortError> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (port(start)?, port(end)?);
    if end < start { Err(PortError::Range(text.to_owned())) } else { Ok((start, end)) }
}

fn port(text: &str) -> Result<u16, PortError> {
    text.parse().map_err(|_| PortError::Port(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_protocols() {
        let cases = [
            ("80", Ok("80/tcp")),
            ("53/udp", Ok("53/udp")),
            ("53/UDP", Ok("53/udp C")),
            ("80/", Ok("80/tcp")),
            ("8000-8002", Ok("8000/tcp 8001/tcp 8002/tcp")),
            ("80-80", Ok("80/tcp")),
            ("8080:80", Ok("80/tcp H")),
            ("127.0.0.1:8080:80/sctp", Ok("80/sctp H")),
            ("[::1]:8080:80", Ok("80/tcp H")),
            ("::1:8080:80", Ok("80/tcp H")),
            ("127.0.0.1::80", Ok("80/tcp H")),
            ("8000-8005:80", Ok("80/tcp H")),
            ("", Err("`` names no port")),
            ("/tcp", Err("`/tcp` names no port")),
            ("80/icmp", Err("unknown protocol `icmp`")),
            ("x", Err("invalid port `x`: ports are numbers from 0 to 65535")),
            ("65536", Err("invalid port `65536`: ports are numbers from 0 to 65535")),
            ("90-80", Err("the range `90-80` ends before it begins")),
            ("1-3:1-2", Err("the ranges `1-2` and `1-3` differ in length")),
            ("300.0.0.1:1:80", Err("invalid IP address `300.0.0.1`")),
        ];
        for (word, expected) in cases {
            let result = ports(word).map(|it| {
                let capitals = if it.protocol_has_capitals { " C" } else { "" };
                let host = if it.names_host { " H" } else { "" };
                format!("{}{capitals}{host}", it.ports.join(" "))
            });
            let result = result.map_err(|error| error.to_string());
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(result, expected, "{word}");
        }
    }
}
