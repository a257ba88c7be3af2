//! The server over real connections: bodies, limits, and its end.

mod bodies;
mod limits;
mod observe;
mod stop;
mod support;
