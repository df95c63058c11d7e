//! How much and how often: durations, sizes, rates, shares.

use std::time::Duration;

use portcullis_abi::calendar::{self, Unit};
use portcullis_core::rollout::WHOLE;

use super::Written;

impl Written for Duration {
    const FORMAT: &'static str = "duration";
    const WHAT: &'static str = "a duration";
    const EXAMPLES: &'static [&'static str] = &["5s", "250ms", "2m", "1h"];

    fn read(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        let number = positive(number)?;
        let seconds = |each: u64| number.checked_mul(each).map(Self::from_secs).ok_or("it is too long".to_owned());
        match unit {
            "us" => Ok(Self::from_micros(number)),
            "ms" => Ok(Self::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            _ => Err(format!("`{unit}` is not one of the units `us`, `ms`, `s`, `m`, `h`")),
        }
    }

    fn write(&self) -> String {
        match self.as_micros() {
            micros if micros % 1_000_000 == 0 => format!("{}s", micros / 1_000_000),
            micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
            micros => format!("{micros}us"),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Written for Size {
    const FORMAT: &'static str = "size";
    const WHAT: &'static str = "a size";
    const EXAMPLES: &'static [&'static str] = &["16MiB", "64KiB", "1GiB"];

    fn read(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(format!("`{unit}` is not one of the units `B`, `KiB`, `MiB`, `GiB`")),
        };
        let bytes = positive(number)?.checked_mul(1 << shift).ok_or("it is too large".to_owned())?;
        Ok(Self(bytes))
    }

    fn write(&self) -> String {
        match self.0 {
            bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
            bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
            bytes => format!("{bytes}B"),
        }
    }
}

/// A number of events in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In which time.
    pub per: Duration,
}

impl Written for Rate {
    const FORMAT: &'static str = "rate";
    const WHAT: &'static str = "a rate";
    const EXAMPLES: &'static [&'static str] = &["500/s", "1000/m", "20/h"];

    fn read(text: &str) -> Result<Self, String> {
        let (count, per) = text.split_once('/').ok_or("it has no `/`".to_owned())?;
        let count = count.trim().parse().map_err(|_| "it does not begin with a whole number".to_owned())?;
        let per = match per.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            other => return Err(format!("`{other}` is not one of `s`, `m`, `h`")),
        };
        Ok(Self { count: positive(count)?, per: Duration::from_secs(per) })
    }

    fn write(&self) -> String {
        let per = match self.per.as_secs() {
            60 => "m",
            3600 => "h",
            _ => "s",
        };
        format!("{}/{per}", self.count)
    }
}

/// A number of events in a unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// How many.
    pub(crate) count: u64,
    /// In which unit.
    pub(crate) unit: Unit,
}

impl Written for Quota {
    const FORMAT: &'static str = "quota";
    const WHAT: &'static str = "a quota";
    const EXAMPLES: &'static [&'static str] = &["100000/month", "10000/day", "1000/hour"];

    fn read(text: &str) -> Result<Self, String> {
        let (count, unit) = text.split_once('/').ok_or("it has no `/`".to_owned())?;
        let count = count.trim().parse().map_err(|_| "it does not begin with a whole number".to_owned())?;
        let other = || format!("`{}` is not one of `hour`, `day`, `month`", unit.trim());
        Ok(Self { count: positive(count)?, unit: Unit::named(unit.trim()).ok_or_else(other)? })
    }

    fn write(&self) -> String {
        format!("{}/{}", self.count, self.unit.name())
    }
}

/// Where the calendar's days begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone(pub(crate) calendar::Zone);

impl Written for Zone {
    const FORMAT: &'static str = "zone";
    const WHAT: &'static str = "a time zone";
    const EXAMPLES: &'static [&'static str] = &["Europe/Berlin", "+01:00"];

    fn read(text: &str) -> Result<Self, String> {
        calendar::Zone::parse(text).map(Self).map_err(|why| format!("it is {why}"))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// Processor time in each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuShare(pub(crate) Duration);

impl Written for CpuShare {
    const FORMAT: &'static str = "cpu-share";
    const WHAT: &'static str = "a share of processor time";
    const EXAMPLES: &'static [&'static str] = &["100ms/s", "2s/s"];

    fn read(text: &str) -> Result<Self, String> {
        let share = text.strip_suffix("/s").ok_or("it does not end in `/s`".to_owned())?;
        Duration::read(share.trim()).map(Self)
    }

    fn write(&self) -> String {
        format!("{}/s", self.0.write())
    }
}

/// A number of bytes in each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRate(pub(crate) Size);

impl Written for ByteRate {
    const FORMAT: &'static str = "byte-rate";
    const WHAT: &'static str = "a number of bytes in each second";
    const EXAMPLES: &'static [&'static str] = &["64KiB/s", "1MiB/s"];

    fn read(text: &str) -> Result<Self, String> {
        let size = text.strip_suffix("/s").ok_or("it does not end in `/s`".to_owned())?;
        Size::read(size.trim()).map(Self)
    }

    fn write(&self) -> String {
        format!("{}/s", self.0.write())
    }
}

/// A share, in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u32);

impl Written for Percent {
    const FORMAT: &'static str = "percent";
    const WHAT: &'static str = "a percentage";
    const EXAMPLES: &'static [&'static str] = &["0.5%", "2%"];

    fn read(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').ok_or("it does not end in `%`".to_owned())?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
        let (Some(whole), Some(_), true) = (digits(whole), digits(part), part.len() <= 2) else {
            return Err("it is not a number with at most two decimals".to_owned());
        };
        let hundredths = digits(&format!("{part:0<2}")).unwrap_or_default();
        match whole.checked_mul(100).and_then(|whole| whole.checked_add(hundredths)) {
            Some(share) if share <= WHOLE => Ok(Self(share)),
            _ => Err("it is more than the whole".to_owned()),
        }
    }

    fn write(&self) -> String {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => format!("{whole}%"),
            (whole, part) => format!("{whole}.{part:02}%"),
        }
    }
}

fn split_unit(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a whole number".to_owned());
    }
    if unit.starts_with('.') {
        return Err("it has a fraction; use a smaller unit".to_owned());
    }
    let number = number.parse().map_err(|_| "the number is too large".to_owned())?;
    if unit.is_empty() { Err("it has no unit".to_owned()) } else { Ok((number, unit.trim_start())) }
}

fn positive(number: u64) -> Result<u64, String> {
    if number == 0 { Err("it must be more than zero".to_owned()) } else { Ok(number) }
}
