//! A request of a client, understood.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::hosted::Admitted;
use crate::target::Target;
use crate::upstreams::Upstream;

/// A request, its body aside.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// What it is for: with an upstream of several bases, below the first of them.
    pub target: Target,
    /// The headers, without those that concern the connection only.
    pub headers: HeaderMap,
    /// The configured upstream that it belongs to.
    pub upstream: Option<Arc<Upstream>>,
    /// Where the client sees the upstream's base: the URL to write into what is rendered, such as
    /// `http://127.0.0.1:3142/npm`. `None` for a client that uses us as its forward proxy.
    pub base: Option<String>,
    /// The client.
    pub client: SocketAddr,
    /// What the client may do with private packages: the engine finds out.
    pub admitted: Admitted,
}
