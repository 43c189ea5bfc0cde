//! Numbers and tables for people.
#![forbid(unsafe_code)]

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Packets per second as Mpps.
pub fn mpps(packets_per_second: f64) -> String {
    format!("{:.3}", packets_per_second / 1e6)
}

/// Bits per second with a unit that keeps the number short.
pub fn bits(bits_per_second: f64) -> String {
    match bits_per_second {
        b if b >= 1e9 => format!("{:.2} Gb/s", b / 1e9),
        b if b >= 1e6 => format!("{:.1} Mb/s", b / 1e6),
        b => format!("{:.1} kb/s", b / 1e3),
    }
}

/// Columns as wide as their widest cell. The first `left` columns are aligned to the left, the others to the right.
pub fn table(left: usize, header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        cells.chain(header.get(column).copied()).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).enumerate().map(|(column, (cell, width))| match column < left {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head = line(&mut header.iter().copied());
    rows.iter().fold(head, |text, row| text + &line(&mut row.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1000, 1234567, u64::MAX].map(count),
            ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]
        );
        assert_eq!([1.5e3, 2.5e6, 1.25e9].map(bits), ["1.5 kb/s", "2.5 Mb/s", "1.25 Gb/s"]);
        assert_eq!(mpps(1_488_095.0), "1.488");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "1,000".into()]];
        assert_eq!(table(1, &["port", "rx"], &rows), "port     rx\na         1\nlong  1,000\n");
    }
}
