//! Sizes on the command line: `1GiB`, `512MiB`, `65536`.

/// The bytes of a size.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("sizes are like 1GiB, 512MiB or 65536".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "no number that fits".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse("65536"), Ok(65_536));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("512 mib"), Ok(512 << 20));
        assert_eq!(parse("3k"), Ok(3072));
        for wrong in [
            "",
            "GiB",
            "1.5GiB",
            "1GB",
            "-1",
            "99999999999999999999",
            "17000000TiB",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
