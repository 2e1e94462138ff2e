//! Quantities as people read them.

/// Milliseconds with three significant digits or so.
pub fn ms(ns: f64) -> String {
    let ms = ns / 1e6;
    match ms {
        _ if ms >= 100.0 => format!("{ms:.0}"),
        _ if ms >= 10.0 => format!("{ms:.1}"),
        _ if ms >= 1.0 => format!("{ms:.2}"),
        _ => format!("{ms:.3}"),
    }
}

/// A duration in the unit that suits it.
pub fn duration(ns: f64) -> String {
    match ns.abs() {
        size if size < 1e3 => format!("{ns:.0} ns"),
        size if size < 1e5 => format!("{:.3} µs", ns / 1e3),
        size if size < 1e10 => format!("{} ms", ms(ns)),
        _ => format!("{:.1} s", ns / 1e9),
    }
}

/// A size in the unit that suits it.
pub fn size(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes.abs() < 1024.0 {
        return format!("{bytes:.0} bytes");
    }
    let power = (bytes.abs().log2() / 10.0).floor().clamp(1.0, UNITS.len() as f64);
    format!("{:.1} {}", bytes / 1024_f64.powf(power), UNITS[power as usize - 1])
}

/// A share of 1 in per cent.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent != 0.0 && percent.abs() < 1.0 { format!("{percent:.2} %") } else { format!("{percent:.1} %") }
}

/// A number of things, of which one is singular.
pub fn counted(count: impl TryInto<u64>, thing: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([0_u32, 1, 2].map(|count| counted(count, "record")), ["0 records", "1 record", "2 records"]);
    }

    #[test]
    fn times_keep_three_digits() {
        assert_eq!(
            ["123", "12.3", "1.23", "0.123"],
            [123e6, 12.3e6, 1.23e6, 0.123e6].map(ms).each_ref().map(|s| s.as_str())
        );
    }

    #[test]
    fn units_suit_the_quantity() {
        assert_eq!([5.0, 5e3, 5e6, 5e10].map(duration), ["5 ns", "5.000 µs", "5.00 ms", "50.0 s"]);
        assert_eq!([0.0, 1023.0, 1024.0, 1.5 * 1048576.0].map(size), ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB"]);
        assert_eq!(size(-1.5 * 1048576.0), "-1.5 MiB");
        assert_eq!([0.0, 0.001, 0.5, 2.0].map(percent), ["0.0 %", "0.10 %", "50.0 %", "200.0 %"]);
    }
}
