//! The server over real connections: bodies, limits, and its end.

mod bodies;
mod limits;
mod stop;
mod support;
