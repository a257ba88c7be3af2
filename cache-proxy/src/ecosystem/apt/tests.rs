//! Archives that change while they are read, in every order, against the whole of apt's ecosystem
//! without a socket.

mod coherence;
mod faults;
mod upstream;
