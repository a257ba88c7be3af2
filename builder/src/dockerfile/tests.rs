//! The language as tables. Every syntax error with its exact text is in `tests/errors.txt`:
//! blocks of a Dockerfile, a line `----`, what is printed, and a line `====`.

mod errors;
mod hostile;
mod language;
