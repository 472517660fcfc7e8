//! How words after `kubectl kubefed` go on, in the language in which kubectl asks its plugins.

use clap::Command;

/// What follows the candidates: whether files are candidates as well.
const NO_FILES: &str = ":4";
const FILES: &str = ":0";

/// One candidate a line, each with what it is about. The last word is the one that is being typed.
pub(crate) fn answer(mut root: Command, words: &[String]) -> String {
    root.build();
    let (typed, before) = match words.split_last() {
        Some((typed, before)) => (typed.as_str(), before),
        None => ("", &[][..]),
    };
    let mut command = &root;
    for word in before {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let told = |name: &str, about: Option<&clap::builder::StyledStr>| match about {
        Some(about) => format!("{name}\t{}", about.to_string().lines().next().unwrap_or("")),
        None => name.to_owned(),
    };
    let mut candidates: Vec<String> = Vec::new();
    if typed.starts_with('-') {
        let flags = command.get_arguments().filter(|flag| !flag.is_hide_set());
        for flag in flags {
            let long = flag.get_long().map(|long| format!("--{long}"));
            candidates.extend(
                long.filter(|long| long.starts_with(typed))
                    .map(|long| told(&long, flag.get_help())),
            );
        }
    } else {
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            if command.get_name().starts_with(typed) {
                candidates.push(told(command.get_name(), command.get_about()));
            }
        }
    }
    let files = candidates.is_empty() && !typed.starts_with('-');
    candidates.push(if files { FILES.into() } else { NO_FILES.into() });
    candidates.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Name;

    fn answers(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|&word| word.into()).collect();
        let answer = answer(crate::command(Name::KubectlComplete), &words);
        answer.lines().map(|line| line.split('\t').next().unwrap_or("").to_owned()).collect()
    }

    #[test]
    fn commands_and_flags_are_completed() {
        assert_eq!(answers(&["en"]), ["enable", NO_FILES]);
        assert_eq!(
            answers(&["enable", "--fed"]),
            ["--federated-group", "--federated-version", NO_FILES]
        );
        assert_eq!(
            answers(&["orphaning-deletion", ""]),
            ["enable", "disable", "status", "help", NO_FILES]
        );
        assert_eq!(answers(&["enable", "--filename", "x"]), [FILES]);
        assert_eq!(answers(&["enable", "--no-such"]), [NO_FILES]);
        assert!(answers(&[]).contains(&"join".to_owned()));
    }
}
