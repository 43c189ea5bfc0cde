//! A command line taken apart by hand: `--name value` and `--name=value`.
//!
//! Owns the wording of usage errors. Nothing here panics, whatever the shell passes; every problem is one line that
//! names the option, what was given and what would do.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// One line that says what is wrong and what mends it.
pub type Problem = Box<dyn Error + Send + Sync>;

/// A cursor over the arguments of a program.
pub struct Args {
    rest: std::vec::IntoIter<String>,
    option: String,
    inline: Option<String>,
}

impl Args {
    /// The arguments after the program's name.
    pub fn new(list: impl IntoIterator<Item = String>) -> Self {
        Args { rest: list.into_iter().collect::<Vec<_>>().into_iter(), option: String::new(), inline: None }
    }

    /// The next option with its dashes, or `None` at the end.
    pub fn next_option(&mut self) -> Result<Option<String>, Problem> {
        if let Some(value) = &self.inline {
            return Err(format!("{} takes no value, and '{value}' was given", self.option).into());
        }
        let Some(word) = self.rest.next() else { return Ok(None) };
        if !word.starts_with('-') {
            return Err(format!("'{word}' is not an option; --help lists them").into());
        }
        match word.split_once('=') {
            Some((option, value)) => (self.option, self.inline) = (option.to_owned(), Some(value.to_owned())),
            None => self.option = word,
        }
        Ok(Some(self.option.clone()))
    }

    /// The text given to the current option.
    pub fn value(&mut self) -> Result<String, Problem> {
        match self.inline.take().or_else(|| self.rest.next()) {
            Some(value) => Ok(value),
            None => Err(format!("{} needs a value; --help tells which", self.option).into()),
        }
    }

    /// The value of the current option, parsed; the type's own error says what would do.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self) -> Result<T, Problem> {
        self.parsed_by(str::parse)
    }

    /// The value of the current option, parsed by `parse`.
    pub fn parsed_by<T, E: Display>(&mut self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Problem> {
        let value = self.value()?;
        parse(&value).map_err(|error| format!("{}: {error}", self.option).into())
    }

    /// A whole number within `range`.
    pub fn number<T>(&mut self, range: RangeInclusive<T>) -> Result<T, Problem>
    where
        T: FromStr + PartialOrd + Display,
    {
        self.parsed_by(|text| match text.parse::<T>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("'{text}' is not a whole number from {} to {}", range.start(), range.end())),
        })
    }

    /// A time in seconds, with or without decimals.
    pub fn seconds(&mut self) -> Result<Duration, Problem> {
        self.parsed_by(|text| {
            let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s));
            seconds
                .map(Duration::from_secs_f64)
                .ok_or_else(|| format!("'{text}' is not a time in seconds, like 10 or 0.5"))
        })
    }

    /// The error for an option that the program does not have.
    pub fn unknown(&self) -> Problem {
        format!("there is no option {}; --help lists them", self.option).into()
    }
}

/// Runs a program: its arguments in, its exit code out. A problem becomes one line on stderr and exit code 1.
pub fn run(program: &str, main: impl FnOnce(Args) -> Result<(), Problem>) -> ExitCode {
    let list = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    match main(Args::new(list)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // The exit code tells when even stderr is gone.
            let _ = writeln!(io::stderr(), "{program}: {problem}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn values_follow_the_option_or_an_equals_sign() {
        let mut args = args("--burst 8 --burst=16 --json");
        for expected in [8u16, 16] {
            assert_eq!(args.next_option().unwrap().unwrap(), "--burst");
            assert_eq!(args.number(1..=1024u16).unwrap(), expected);
        }
        assert_eq!(args.next_option().unwrap().unwrap(), "--json");
        assert!(args.next_option().unwrap().is_none());
    }

    #[test]
    fn problems_name_the_option_and_the_value() {
        let number = |line: &str| {
            let mut args = args(line);
            args.next_option().unwrap();
            args.number(1..=1024u16).unwrap_err().to_string()
        };
        for bad in ["0", "1025", "-1", "x", "1e3", "99999999999999999999"] {
            assert_eq!(
                number(&format!("--burst {bad}")),
                format!("--burst: '{bad}' is not a whole number from 1 to 1024")
            );
        }
        assert!(number("--burst").contains("--burst needs a value"));
        assert!(args("eth0").next_option().unwrap_err().to_string().contains("eth0"));

        let mut flag = args("--json=yes");
        flag.next_option().unwrap();
        assert!(flag.next_option().unwrap_err().to_string().contains("takes no value"));
    }

    #[test]
    fn times_are_finite_and_not_negative() {
        let seconds = |text: &str| {
            let mut args = args(&format!("--duration {text}"));
            args.next_option().unwrap();
            args.seconds()
        };
        assert_eq!(seconds("0.25").unwrap(), Duration::from_millis(250));
        for bad in ["-1", "nan", "inf", "1e30", "five"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
