//! What people see of results.

pub mod terminal;
