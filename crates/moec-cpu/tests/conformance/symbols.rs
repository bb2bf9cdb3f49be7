//! What an object asks of others: read from its symbol table, since asking `nm` takes longer than making a small object.

/// Names of the undefined symbols of a 64-bit ELF object.
pub fn undefined_symbols(object: &[u8]) -> Vec<String> {
    let number = |at: usize, size: usize| {
        object[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, entry, count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    let section = |section: usize| {
        let at = table + section * entry;
        let (kind, offset, size, link) =
            (number(at + 4, 4), number(at + 24, 8), number(at + 32, 8), number(at + 40, 4));
        (kind, offset..offset + size, link)
    };
    const SYMBOLS: usize = 2;
    let (_, symbols, names) = (0..count).map(section).find(|(kind, ..)| *kind == SYMBOLS).expect("a symbol table");
    let names = &object[section(names).1];
    let name = |at: usize| names[at..].split(|byte| *byte == 0).next().expect("a name ends");
    // Where a symbol is defined, its section is not 0; the first symbol has no name.
    let undefined = symbols.step_by(24).filter(|at| number(at + 6, 2) == 0 && number(*at, 4) != 0);
    undefined.map(|at| String::from_utf8_lossy(name(number(at, 4))).into_owned()).collect()
}
