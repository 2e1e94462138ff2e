//! stub
#[derive(Clone, Debug)]
pub enum Mode {
    Private,
    Host,
}
pub struct Private;
