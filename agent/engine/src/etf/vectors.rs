//! Terms for the tests: as real nodes encode them, as old and new releases do, and made at random.

use proptest::prelude::*;

/// Octets from hexadecimal digits; blanks are for reading.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// By `term_to_binary` of OTP 25, without the version byte: the term as Erlang writes it, and its octets.
pub(super) const OTP25: &[(&str, &str)] = &[
    ("255", "61ff"),
    ("-1", "62ffffffff"),
    ("1 bsl 63", "6e08000000000000000080"),
    ("(1 bsl 63) - 1", "6e0800ffffffffffffff7f"),
    ("-(1 bsl 63)", "6e08010000000000000080"),
    ("-(1 bsl 63) - 1", "6e08010100000000000080"),
    ("1.5", "463ff8000000000000"),
    ("1.5, {minor_version, 0}", "63312e3530303030303030303030303030303030303030652b30300000000000"),
    ("'é'", "640001e9"),
    ("'ж'", "7702d0b6"),
    ("''", "640000"),
    ("{a, {}, 1}", "68036400016168006101"),
    ("[]", "6a"),
    ("\"abc\"", "6b0003616263"),
    ("[a, b]", "6c0000000264000161640001626a"),
    ("[a | b]", "6c000000016400016164000162"),
    ("[[1000], {[x | y]}]", "6c000000026c0000000162000003e86a68016c0000000164000178640001796a"),
    ("<<\"hi\">>", "6d000000026869"),
    ("<<1, 2, 3:3>>", "4d0000000303010260"),
    ("#{a => 1, b => []}", "7400000002640001616101640001626a"),
    ("self()", "5864000d6e6f6e6f6465406e6f686f7374000000090000000000000000"),
    ("hd(erlang:ports())", "5964000d6e6f6e6f6465406e6f686f73740000000000000000"),
    ("make_ref()", "5a000364000d6e6f6e6f6465406e6f686f737400000000000386c5483800029ed987c4"),
    ("alias()", "5a000364000d6e6f6e6f6465406e6f686f737400000000000386cf483900029ed987c4"),
    ("fun lists:map/2", "716400056c697374736400036d61706102"),
];

/// As other releases than OTP 25 encode terms, by the layouts of "External Term Format".
pub(super) const OTHERS: &[(&str, &str)] = &[
    ("FLOAT_EXT below zero", "632d312e3030303030303030303030303030303030303030652b313000000000"),
    ("SMALL_ATOM_EXT", "73 03 6f6be9"),
    ("ATOM_UTF8_EXT", "76 0004 d0b6d0b6"),
    ("REFERENCE_EXT", "65 640001 61 00000007 02"),
    ("NEW_REFERENCE_EXT", "72 0003 770161 02 00000001 00000002 00000003"),
    ("PORT_EXT", "66 730161 00000007 02"),
    ("PID_EXT", "67 640001 61 00000007 00000000 02"),
    ("V4_PORT_EXT", "78 770161 0000000100000000 5f5f5f5f"),
    ("reference of five words", "5a 0005 770161 5f5f5f5f 0000000000000000000000000000000000000000"),
    ("LARGE_TUPLE_EXT", "69 00000002 6a 6a"),
    ("LARGE_BIG_EXT", "6f 00000009 01 000000000000000001"),
    ("FUN_EXT", "75 00000001 67 640001 61 00000007 00000000 02 64000161 6101 62 00000002 6801 6a"),
    ("RECORD_EXT of OTP 29", "43 00000002 01 77016d 770172 770161 770162 6101 6a"),
    ("RECORD_EXT without fields", "43 00000000 00 77016d 770172"),
    ("EXPORT_EXT with INTEGER_EXT", "71 770161 770162 62 00000003"),
    (
        "NEW_FUN_EXT",
        "70 00000034 01 000102030405060708090a0b0c0d0e0f 00000001 00000001 \
      770161 6101 6102 58 5203 00000001 00000000 00000000 6a",
    ),
    ("atom cache reference", "68 02 52 00 52 03"),
    ("pid of a cached node", "58 52 03 00000001 00000002 00000003"),
    ("empty bit string", "4d 00000000 00"),
    ("zero with a sign", "6e 02 01 0000"),
];

/// References into the atom table that the vectors and the random terms use.
pub(super) const ATOMS: usize = 4;

/// Whole terms, encoded, of all the shapes there are.
pub(super) fn term() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(|value| vec![97, value]),
        any::<i32>().prop_map(|value| [&[98][..], &value.to_be_bytes()].concat()),
        atom(),
        Just(vec![106]),
        prop::num::f64::NORMAL.prop_map(|value| [&[70][..], &value.to_be_bytes()].concat()),
        bytes(300).prop_map(|text| behind(107, &u16::try_from(text.len()).unwrap().to_be_bytes(), &text)),
        bytes(5000).prop_map(|bytes| behind(109, &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes)),
        bytes(20).prop_map(|digits| behind(110, &[u8::try_from(digits.len()).unwrap(), 0], &digits)),
        bytes(400).prop_map(|digits| {
            let len = u32::try_from(digits.len()).unwrap().to_be_bytes();
            behind(111, &[&len[..], &[1]].concat(), &digits)
        }),
        prop::sample::select([OTP25, OTHERS].concat()).prop_map(|(_, octets)| hex(octets)),
        (atom(), any::<[u8; 12]>()).prop_map(|(node, rest)| [&[88], &node[..], &rest].concat()),
        (atom(), any::<[u8; 16]>()).prop_map(|(node, rest)| [&[90, 0, 3], &node[..], &rest].concat()),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|parts| counted(104, parts.len(), 1, &parts)),
            prop::collection::vec(inner.clone(), 1..6).prop_map(|parts| counted(108, parts.len() - 1, 4, &parts)),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(|pairs| {
                let parts: Vec<_> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                counted(116, parts.len() / 2, 4, &parts)
            }),
            prop::collection::vec((atom(), inner), 0..4).prop_map(|fields| {
                let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
                let head = [0, 0, 0, u8::try_from(names.len()).unwrap(), 1, 119, 1, b'm', 119, 1, b'r'];
                behind(67, &head, &[names.concat(), values.concat()].concat())
            }),
        ]
    })
}

fn atom() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zж]{0,40}".prop_map(|text| behind(119, &[u8::try_from(text.len()).unwrap()], text.as_bytes())),
        "[a-zж]{0,255}"
            .prop_map(|text| { behind(118, &u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()) }),
        (0..u8::try_from(ATOMS).unwrap()).prop_map(|index| vec![82, index]),
    ]
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn behind(tag: u8, head: &[u8], body: &[u8]) -> Vec<u8> {
    [&[tag], head, body].concat()
}

fn counted(tag: u8, count: usize, width: usize, parts: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(count).unwrap().to_be_bytes();
    behind(tag, &count[4 - width..], &parts.concat())
}
