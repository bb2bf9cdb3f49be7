//! XXH64 with seed 0, as data comes in (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). The run time has
//! the same in kernels/runtime/checksum.c.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

const STRIPE: usize = 32;

#[derive(Clone, Debug)]
pub struct Checksum {
    lanes: [u64; 4],
    /// Less than a stripe, that waits for more.
    rest: Vec<u8>,
    bytes: u64,
}

impl Default for Checksum {
    fn default() -> Self {
        let lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u64.wrapping_sub(PRIME_1)];
        Checksum { lanes, rest: Vec::new(), bytes: 0 }
    }
}

impl Checksum {
    pub fn of(data: &[u8]) -> u64 {
        let mut checksum = Checksum::default();
        checksum.update(data);
        checksum.finish()
    }

    pub fn update(&mut self, mut data: &[u8]) {
        self.bytes += data.len() as u64;
        if !self.rest.is_empty() {
            let missing = (STRIPE - self.rest.len()).min(data.len());
            self.rest.extend_from_slice(&data[..missing]);
            data = &data[missing..];
            if self.rest.len() < STRIPE {
                return;
            }
            stripe(&mut self.lanes, &self.rest);
            self.rest.clear();
        }
        let mut stripes = data.chunks_exact(STRIPE);
        stripes.by_ref().for_each(|bytes| stripe(&mut self.lanes, bytes));
        self.rest.extend_from_slice(stripes.remainder());
    }

    pub fn finish(&self) -> u64 {
        let mut hash = PRIME_5;
        if self.bytes >= STRIPE as u64 {
            let turned = self.lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
            hash = turned.fold(0, u64::wrapping_add);
            for lane in self.lanes {
                hash = (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
            }
        }
        hash = hash.wrapping_add(self.bytes);
        let mut words = self.rest.chunks_exact(8);
        for word in words.by_ref() {
            hash = (hash ^ round(0, word_64(word))).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        let mut halves = words.remainder().chunks_exact(4);
        for half in halves.by_ref() {
            let half = u64::from(u32::from_le_bytes([half[0], half[1], half[2], half[3]]));
            hash = (hash ^ half.wrapping_mul(PRIME_1)).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        }
        for byte in halves.remainder() {
            hash = (hash ^ u64::from(*byte).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
        hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
        hash ^ hash >> 32
    }
}

fn word_64(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

fn stripe(lanes: &mut [u64; 4], bytes: &[u8]) {
    for (lane, word) in lanes.iter_mut().zip(bytes.chunks_exact(8)) {
        *lane = round(*lane, word_64(word));
    }
}
