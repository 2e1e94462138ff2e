//! Written-down recordings and the rows that must come of them.
