use moec_codegen::Checksum;

/// From the description of the algorithm, and from `xxhsum`.
#[test]
fn known_values() {
    assert_eq!(Checksum::of(b""), 0xEF46_DB37_51D8_E999);
    assert_eq!(Checksum::of(b"a"), 0xD24E_C4F1_A98C_6E5B);
    assert_eq!(Checksum::of(b"abc"), 0x44BC_2CF5_AD77_0999);
    assert_eq!(Checksum::of(b"Nobody inspects the spammish repetition"), 0xFBCE_A83C_8A37_8BF1);
}

#[test]
fn pieces_make_no_difference() {
    let data: Vec<u8> = (0..1000u32).map(|at| (at * at % 251) as u8).collect();
    for piece in [1, 7, 31, 32, 33, 64, 999] {
        let mut checksum = Checksum::default();
        data.chunks(piece).for_each(|bytes| checksum.update(bytes));
        assert_eq!(checksum.finish(), Checksum::of(&data), "in pieces of {piece}");
    }
}
