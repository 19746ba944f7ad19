//! The listeners of an app: owned here for ever, never closed while the app lives.
