//! A failing spec made small: lines are dropped as long as it still fails in the same way.

/// `fails` says how a text fails, `None` when it does not.
pub fn shrunk(text: &str, fails: impl Fn(&str) -> Option<String>) -> String {
    let Some(wanted) = fails(text) else { return text.to_owned() };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let still = |lines: &[String]| fails(&(lines.join("\n") + "\n")).as_deref() == Some(&wanted);
    loop {
        let before = lines.clone();
        let mut size = (lines.len() / 2).max(1);
        while size > 0 {
            let mut at = 0;
            while at + size <= lines.len() {
                let mut fewer = lines.clone();
                fewer.drain(at..at + size);
                if still(&fewer) {
                    lines = fewer;
                } else {
                    at += 1;
                }
            }
            size /= 2;
        }
        simpler_lines(&mut lines, &still);
        if lines == before {
            return lines.join("\n") + "\n";
        }
    }
}

/// Each line without one of its bracketed parts, or with a name in their place.
fn simpler_lines(lines: &mut [String], still: &impl Fn(&[String]) -> bool) {
    for at in 0..lines.len() {
        'again: loop {
            for shorter in shorter(&lines[at]) {
                let old = std::mem::replace(&mut lines[at], shorter);
                if still(lines) {
                    continue 'again;
                }
                lines[at] = old;
            }
            break;
        }
    }
}

fn shorter(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let bytes = line.as_bytes();
    for (open, _) in line.match_indices('(') {
        let mut depth = 0;
        for close in open..bytes.len() {
            depth += i32::from(bytes[close] == b'(') - i32::from(bytes[close] == b')');
            if depth == 0 {
                let start = line[..open]
                    .rfind(|c: char| !c.is_alphanumeric() && c != '_')
                    .map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
                let inner = &line[open + 1..close];
                let first = inner.split([',', ' ']).next().unwrap_or_default();
                found.push(format!("{}{inner}{}", &line[..start], &line[close + 1..]));
                found.push(format!("{}{first}{}", &line[..start], &line[close + 1..]));
                break;
            }
        }
    }
    for sign in [" + ", " * ", " - ", " · ", "; ", ", "] {
        for (at, _) in line.match_indices(sign) {
            found.push(line[..at].to_owned());
            let end = line[at + sign.len()..].find([' ', ')', ',']).map_or(line.len(), |end| at + sign.len() + end);
            found.push(format!("{}{}", &line[..at], &line[end..]));
            if let Some(equals) = line.find("= ") {
                found.push(format!("{}= {}", &line[..equals], &line[at + sign.len()..]));
            }
        }
    }
    found.retain(|other| other.len() < line.len());
    found
}
