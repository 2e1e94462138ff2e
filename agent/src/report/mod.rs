//! What people see of results.

pub mod html;
pub mod memory;
pub mod suite;
pub mod terminal;
pub mod units;
pub mod window;
