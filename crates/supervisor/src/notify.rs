//! What workers say by the protocol of `sd_notify`.
