//! The instruction sets that code is made for, and what emission wants to know of them.

/// An instruction-set level of x86-64. The run time takes the best that the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Any x86-64: SSE2.
    Scalar,
    /// x86-64-v3: AVX2, FMA, F16C.
    Avx2,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    Avx512,
    /// The same with instructions that multiply pairs of bf16 and fours of bytes: AVX-512 BF16 and VNNI.
    Avx512Dot,
    /// That, and matrix tiles: AMX TILE, BF16 and INT8.
    Amx,
}

impl Level {
    /// From the least to the most.
    pub const ALL: [Level; 5] = [Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Dot, Level::Amx];

    /// In function names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Dot => "avx512_dot",
            Level::Amx => "amx",
        }
    }

    /// LLVM's name of the processor.
    pub fn cpu(self) -> &'static str {
        match self {
            Level::Scalar => "x86-64",
            Level::Avx2 => "x86-64-v3",
            Level::Avx512 | Level::Avx512Dot | Level::Amx => "x86-64-v4",
        }
    }

    /// What the processor has beyond that, as LLVM spells it.
    pub fn features(self) -> &'static str {
        match self {
            Level::Scalar | Level::Avx2 | Level::Avx512 => "",
            Level::Avx512Dot => "+avx512bf16,+avx512vnni",
            Level::Amx => "+avx512bf16,+avx512vnni,+amx-tile,+amx-bf16,+amx-int8",
        }
    }

    /// Multiplies and adds pairs of bf16 in one instruction.
    pub fn multiplies_pairs(self) -> bool {
        self >= Level::Avx512Dot
    }

    /// Multiplies and adds fours of bytes in one instruction.
    pub fn multiplies_fours(self) -> bool {
        self >= Level::Avx512Dot
    }

    /// Multiplies and adds tiles of 16 rows of pairs and fours.
    pub fn multiplies_tiles(self) -> bool {
        self == Level::Amx
    }

    /// f32 lanes of a register.
    pub fn lanes(self) -> u32 {
        match self {
            Level::Scalar => 4,
            Level::Avx2 => 8,
            Level::Avx512 | Level::Avx512Dot | Level::Amx => 16,
        }
    }

    /// Converts f16 in hardware.
    pub fn has_f16(self) -> bool {
        match self {
            Level::Scalar => false,
            Level::Avx2 | Level::Avx512 | Level::Avx512Dot | Level::Amx => true,
        }
    }

    /// How many sums of 16 lanes a GEMM kernel keeps in registers at most.
    pub fn accumulators(self) -> u32 {
        match self {
            Level::Scalar => 2,
            Level::Avx2 => 4,
            Level::Avx512 | Level::Avx512Dot | Level::Amx => 16,
        }
    }
}
