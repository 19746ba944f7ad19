//! A web service to try it all with.
