//! sandscope
