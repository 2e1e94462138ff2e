//! stub
pub struct Console;
