//! Nothing is left running when the supervisor is killed.
