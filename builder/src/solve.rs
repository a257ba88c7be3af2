//! Solving: which steps have run before, which run now, and when.
//!
//! ```text
//! a step's parts ──▶ key ──▶ record ──▶ its layer, if that can be had: the step is CACHED
//!                     └ none: the lock of the key ──▶ look again ──▶ run ──▶ content ID
//!                              the first layer of this content ◀── adopted, or this one
//!                              a record under the key ──▶ what later builds find
//! ```
//!
//! [`keys`] says what decides, [`stack`] what lies below a step, [`recall`] looks for what was made
//! before, [`restamp`] gives it the times of this build, [`step`] runs what was not, [`scheduler`] runs stages at once, [`explain`] tells why.

pub mod explain;
pub(crate) mod keys;
mod noted;
mod recall;
mod restamp;
pub mod reuse;
pub(crate) mod scheduler;
mod stack;
mod stack_id;
mod step;
mod trees;

pub use explain::{Explanation, Why};
pub(crate) use noted::Noted;
pub(crate) use recall::Recalled;
pub use reuse::Reuse;
pub(crate) use scheduler::{Cores, Stages};
pub(crate) use stack::{LayerBlob, LayerStack, StackedLayer};
pub use stack_id::StackId;
pub(crate) use step::{Kept, Made, Question, Solved};
pub(crate) use trees::Trees;
pub use trees::TreesError;
