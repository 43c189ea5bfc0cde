//! The NIC families, and the models of them.
