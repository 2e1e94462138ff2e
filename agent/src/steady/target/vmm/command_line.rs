//! Reads the command lines of VMMs: the values of their options, and QEMU's lists of properties.

/// The value of an option that has any of these names, written as one word or as two; the last one when it is there more than once, as
/// VMMs do. What follows `--` is not for the program.
pub fn value<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut found = None;
    let mut words = arguments.iter().skip(1).take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        if names.contains(&word.as_str()) {
            found = words.next().map(String::as_str);
        } else if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            found = Some(value);
        }
    }
    found
}

/// Whether an option of one of these names is there.
pub fn has(arguments: &[String], names: &[&str]) -> bool {
    let name = |word: &String| names.contains(&word.split('=').next().unwrap_or(word));
    arguments.iter().skip(1).take_while(|word| *word != "--").any(name)
}

/// QEMU's properties `a=1,b=2`, in which a doubled comma stands for one. The first may be a value alone, of the property `implied`.
pub fn properties(text: &str, implied: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_end = letter == ',' && letters.next_if_eq(&',').is_none();
        match parts.last_mut() {
            Some(part) if !is_end => part.push(letter),
            _ => parts.push(String::new()),
        }
    }
    let named = parts.into_iter().enumerate().map(|(position, part)| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None if position == 0 => (implied.to_owned(), part),
        None => (part, "on".to_owned()),
    });
    named.collect()
}

/// The value of a property; the last one when it is there more than once.
pub fn property(text: &str, implied: &str, name: &str) -> Option<String> {
    properties(text, implied).into_iter().rev().find(|(found, _)| found == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn values_are_found_in_either_spelling_and_the_last_counts() {
        assert_eq!(value(&words("firecracker --id=vm1 --no-api"), &["--id"]), Some("vm1"));
        assert_eq!(value(&words("firecracker --id vm1"), &["--id"]), Some("vm1"));
        assert_eq!(value(&words("qemu -name a -m 64 --name b"), &["-name", "--name"]), Some("b"));
        assert_eq!(value(&words("firecracker --id a -- --id b"), &["--id"]), Some("a"));
        assert_eq!(value(&words("firecracker --id"), &["--id"]), None);
        assert_eq!(value(&words("firecracker --identity=7"), &["--id"]), None);
        assert_eq!(value(&words("--id vm1"), &["--id"]), None, "the name of the program is no option");
        // The value of one option is no option.
        assert_eq!(value(&words("firecracker --api-sock --id --id x"), &["--api-sock"]), Some("--id"));
    }

    #[test]
    fn options_are_seen() {
        assert!(has(&words("x --no-api"), &["--no-api"]) && has(&words("x --a=1"), &["--a"]));
        assert!(!has(&words("x -- --no-api"), &["--no-api"]) && !has(&words("--no-api"), &["--no-api"]));
    }

    #[test]
    fn the_name_of_a_guest_is_found_in_any_order_of_properties() {
        for (text, name) in [
            ("dev", "dev"),
            ("dev,debug-threads=on", "dev"),
            ("debug-threads=on,guest=dev", "dev"),
            ("guest=dev,process=dev-proc", "dev"),
            ("process=p,guest=dev,debug-threads=on", "dev"),
            ("a,,b", "a,b"),
            ("guest=a,,,,b,debug-threads=off", "a,,b"),
            ("a,,", "a,"),
            (",,a", ",a"),
            ("my vm,debug-threads=on", "my vm"),
            ("guest=a=b", "a=b"),
            ("guest=old,guest=new", "new"),
        ] {
            assert_eq!(property(text, "guest", "guest").as_deref(), Some(name), "{text}");
        }
        assert_eq!(property("debug-threads=on", "guest", "guest"), None);
        assert_eq!(property("x,debug-threads", "guest", "debug-threads").as_deref(), Some("on"));
    }
}
