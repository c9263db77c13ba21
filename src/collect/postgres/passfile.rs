//! libpq's password file: `host:port:database:user:password`, `*` for any, backslash before `:` and `\`.

/// The password of the first line that fits.
pub(crate) fn find(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let port = port.to_string();
    let wanted = [host, &port, database, user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let (password, keys) = fields.split_last()?;
        let fits = keys.len() == wanted.len()
            && keys.iter().zip(wanted).all(|(key, wanted)| key.text == wanted || (key.text == "*" && !key.escaped));
        fits.then(|| password.text.clone())
    })
}

#[derive(Debug, Default)]
struct Field {
    text: String,
    escaped: bool,
}

/// At most five fields; further colons belong to the password.
fn fields(line: &str) -> Vec<Field> {
    let mut fields = vec![Field::default()];
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        let last = fields.len() == 5;
        let Some(field) = fields.last_mut() else { break };
        match char {
            ':' if !last => fields.push(Field::default()),
            '\\' => {
                field.escaped = true;
                field.text.extend(chars.next());
            }
            other => field.text.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_wins() {
        let text = "# comment\nh1:5432:db:me:one\n*:5433:*:me:t\\:w\\\\o\n\\*:1:*:*:never\n*:*:*:you:three:3\nbroken\n";
        for (host, port, user, password) in [
            ("h1", 5432, "me", Some("one")),
            ("h2", 5433, "me", Some("t:w\\o")),
            ("h2", 1, "you", Some("three:3")),
            ("h2", 1, "me", None),
        ] {
            assert_eq!(find(text, host, port, "db", user).as_deref(), password, "{host} {port} {user}");
        }
    }
}
