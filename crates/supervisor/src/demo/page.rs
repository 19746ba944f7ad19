//! The page that shows which worker answers.

/// The whole page: it loads nothing else.
pub(super) const PAGE: &str = include_str!("page.html");
