//! The one number that an endpoint may take from the query of the URL.

use std::ops::RangeInclusive;

/// What a number is called and may be.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the query.
    pub name: &'static str,
    /// Allowed values.
    pub range: RangeInclusive<u64>,
    /// Value when it is absent; `None`: it must not be.
    pub default: Option<u64>,
}

impl Parameter {
    /// Takes the value from the query.
    ///
    /// # Errors
    /// A sentence with the parameter, the value and the allowed range. A parameter of another name is an error too: a
    /// misspelt one would otherwise pass for absent.
    pub fn value(&self, query: Option<&str>) -> Result<u64, String> {
        let mut found = None;
        for (name, text) in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        {
            if name != self.name {
                return Err(format!("the parameter {name:?} is unknown: {} is expected", self.rule()));
            }
            if found.replace(text).is_some() {
                return Err(format!("the parameter {name:?} is given twice: {} is expected once", self.rule()));
            }
        }
        let Some(text) = found else {
            return self.default.ok_or_else(|| format!("a parameter is missing: {} is expected", self.rule()));
        };
        // `parse` alone would also take a leading plus sign.
        text.parse()
            .ok()
            .filter(|value| text.bytes().all(|byte| byte.is_ascii_digit()) && self.range.contains(value))
            .ok_or_else(|| format!("the parameter {:?} is {text:?}: {} is expected", self.name, self.rule()))
    }

    fn rule(&self) -> String {
        format!("{}, a whole number from {} to {},", self.name, self.range.start(), self.range.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: Parameter = Parameter { name: "n", range: 1..=100, default: None };
    const OPTIONAL: Parameter = Parameter { name: "mib", range: 1..=100, default: Some(50) };

    #[test]
    fn values_in_the_range_are_taken() {
        assert_eq!(REQUIRED.value(Some("n=1")), Ok(1));
        assert_eq!(REQUIRED.value(Some("n=100&")), Ok(100));
        assert_eq!(OPTIONAL.value(None), Ok(50));
        assert_eq!(OPTIONAL.value(Some("")), Ok(50));
        assert_eq!(OPTIONAL.value(Some("mib=7")), Ok(7));
    }

    #[test]
    fn all_else_is_refused_by_name_value_and_range() {
        for query in ["n=0", "n=101", "n=-1", "n=%2B1", "n=+1", "n=1.0", "n=x", "n=", "n", "n=18446744073709551616"] {
            let error = REQUIRED.value(Some(query)).unwrap_err();
            let value = query.strip_prefix("n").unwrap().trim_start_matches('=');
            assert!(error.contains("\"n\"") && error.contains(&format!("{value:?}")), "{query}: {error}");
            assert!(error.contains("from 1 to 100"), "{query}: {error}");
        }
        assert!(REQUIRED.value(None).unwrap_err().contains("missing"));
        assert!(REQUIRED.value(Some("n=1&n=2")).unwrap_err().contains("twice"));
        assert!(OPTIONAL.value(Some("mb=7")).unwrap_err().contains("\"mb\" is unknown"));
    }
}
