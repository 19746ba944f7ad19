//! What workers write: read at once, kept for a while, told to who follows.
