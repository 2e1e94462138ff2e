//! sandscope

pub mod record;
