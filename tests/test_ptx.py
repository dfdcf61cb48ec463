"""The machine that runs PTX: its instructions against Python's integers, and that it finds each fault it is for."""

from __future__ import annotations

import numpy as np
import pytest

from ptx import Code, Fault, run

HEAD = """
.version 8.7
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel(.param .u64 .ptr .global .align 1 x_parameter, .param .u64 .ptr .global .align 1 y_parameter,
    .param .u32 n_parameter)
.reqntid 64
{
    .reg .pred %p<9>;
    .reg .b16 %rs<9>;
    .reg .b32 %r<20>;
    .reg .b64 %rd<20>;
    ld.param.b64 %rd1, [x_parameter];
    ld.param.b64 %rd2, [y_parameter];
    ld.param.b32 %r1, [n_parameter];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mad.lo.s32 %r4, %r3, 64, %r2;   // the thread's number in the grid
    mul.wide.u32 %rd3, %r4, 4;
    add.s64 %rd4, %rd1, %rd3;       // its own x
    add.s64 %rd5, %rd2, %rd3;       // its own y
    mov.b32 %r5, memory;
    shl.b32 %r6, %r2, 2;
    add.s32 %r6, %r5, %r6;          // its own word of shared memory
    xor.b32 %r7, %r2, 32;
    shl.b32 %r7, %r7, 2;
    add.s32 %r7, %r5, %r7;          // that of a thread of the other warp
"""
LOAD, STORE = "ld.global.b32 %r8, [%rd4];", "st.global.b32 [%rd5], %r8;"
PUT, OTHER, MINE = "st.shared.b32 [%r6], %r8;", "ld.shared.b32 %r8, [%r7];", "ld.shared.b32 %r8, [%r6];"
COPY = "cp.async.ca.shared.global [ %r6 + 0 ], [ %rd4 + 0 ], 0x4, %r9;"
COMMIT, WAIT, BARRIER = "cp.async.commit_group;", "cp.async.wait_group 0;", "bar.sync 0;"


def execute(*body: str, x: np.ndarray | None = None, y: np.ndarray | None = None, blocks: int = 2, n: int = 7):
    """y of one launch, blocks in random order, 64 threads each."""
    x = np.arange(64 * blocks, dtype=np.uint32) if x is None else x
    y = np.zeros(64 * blocks, np.uint32) if y is None else y
    code = Code(HEAD + "\n".join(body) + "\nret;\n}")
    run(code, np.random.default_rng().permutation(blocks), [x, y, n], 64, 256)
    return y


def test_through_shared_memory():
    y = execute(LOAD, PUT, BARRIER, OTHER, STORE)
    np.testing.assert_array_equal(y, np.arange(128).reshape(2, 2, 32)[:, ::-1].ravel())


def test_a_copy_in_the_background():
    """Every second thread copies, the others' places become 0."""
    y = execute("and.b32 %r9, %r2, 1;", "shl.b32 %r9, %r9, 2;", COPY, COMMIT, WAIT, BARRIER, OTHER, STORE)
    expected = np.arange(128).reshape(2, 2, 32)[:, ::-1].ravel()
    np.testing.assert_array_equal(y, np.where(expected % 2, expected, 0))


def test_groups_of_copies_are_waited_for_in_their_order():
    later = COPY.replace("%r6 + 0", "%r7 + 0")
    body = ["mov.b32 %r9, 4;", COPY, COMMIT, BARRIER, later, COMMIT, "cp.async.wait_group 1;"]
    with pytest.raises(Fault, match="on its way"):
        execute(*body, MINE, STORE)


@pytest.mark.parametrize(
    "fault, body",
    {
        "another warp wrote": [LOAD, PUT, OTHER, STORE],
        "another warp read": [LOAD, PUT, BARRIER, OTHER, PUT],
        "different values": [LOAD, "st.shared.b32 [%r5], %r8;"],
        "on its way": ["mov.b32 %r9, 4;", COPY, COMMIT, BARRIER, MINE, STORE],
        "another warp wrote, with": ["mov.b32 %r9, 4;", COPY, COMMIT, WAIT, OTHER, STORE],
        "beyond the block's 256 bytes": ["ld.shared.b32 %r8, [%r6+256];"],
        "shared address is no multiple of 8": ["ld.shared.b64 %rd6, [%r6];"],
        "outside of the launch's buffers": ["ld.global.b32 %r8, [%rd4+4];", STORE],
        "address is no multiple of 16": ["ld.global.v4.b32 {%r8,%r9,%r10,%r11}, [%rd4];"],
        "of a block are here": ["setp.lt.s32 %p1, %r2, 40;", "@%p1 bar.sync 0;"],
        "of a warp are here": ["setp.lt.s32 %p1, %r2, 40;", "@%p1 shfl.sync.bfly.b32 %r8, %r2, 1, 31, -1;"],
        "two blocks touch": ["mul.wide.u32 %rd6, %r2, 4;", "add.s64 %rd6, %rd2, %rd6;", "st.global.b32 [%rd6], %r2;"],
        "before the launch before has ended": [LOAD, "griddepcontrol.wait;", STORE],
        "block are here: @%p1 griddepcontrol.wait": ["setp.lt.s32 %p1, %r2, 40;", "@%p1 griddepcontrol.wait;"],
        "touch a word": ["ld.global.b32 %r8, [%rd2+8];", STORE],
    }.items(),
)
def test_faults(fault, body):
    with pytest.raises(Fault, match=fault):
        execute(*body)


def test_memory_may_be_touched_after_waiting():
    y = execute("griddepcontrol.launch_dependents;", "griddepcontrol.wait;", LOAD, STORE)
    np.testing.assert_array_equal(y, np.arange(128))
    with pytest.raises(Fault, match="before the launch before"):  # where one block does not wait
        execute("setp.eq.s32 %p1, %r3, 0;", "@%p1 griddepcontrol.wait;", LOAD, STORE)


def test_two_blocks_may_read_the_same():
    y = execute("ld.global.b32 %r8, [%rd1+20];", STORE)
    assert (y == 5).all()


def test_threads_that_part_meet_again():
    """Each thread goes round as often as its number says, and all reach the barrier after it."""
    y = execute(
        "mov.b32 %r8, 0;",
        "$L__BB0_1:",
        "setp.ge.s32 %p1, %r8, %r2;",
        "@%p1 bra $L__BB0_2;",
        "add.s32 %r8, %r8, 1;",
        "bra.uni $L__BB0_1;",
        "$L__BB0_2:",
        BARRIER,
        "add.s32 %r8, %r8, %r3;",
        STORE,
    )
    np.testing.assert_array_equal(y, (np.arange(64) + np.arange(2)[:, None]).ravel())


def test_what_was_never_written_is_ones():
    y = execute("mov.b32 %r9, %r8;", "add.s32 %r8, %r9, 0;", STORE)
    assert (y == 0xFFFFFFFF).all()
    y = execute(MINE, STORE)
    assert (y == 0xFFFFFFFF).all()


def test_unknown_instructions_are_refused():
    with pytest.raises(NotImplementedError, match="frobnicate"):
        execute("frobnicate.b32 %r8, %r2;")


def signed(bits: int) -> int:
    return bits - 2**32 if bits >= 2**31 else bits


def bytes_of(a: int, b: int, selector: int) -> int:
    both = (a | b << 32).to_bytes(8, "little")
    return int.from_bytes([both[selector >> 4 * j & 7] for j in range(4)], "little")


INSTRUCTIONS = {
    "mul.hi.u32 %r8, %r8, %r9;": lambda a, b: a * b >> 32,
    "mul.hi.s32 %r8, %r8, %r9;": lambda a, b: signed(a) * signed(b) >> 32,
    "mul.lo.s32 %r8, %r8, %r9;": lambda a, b: a * b,
    "mul.wide.s32 %rd6, %r8, %r9; mov.b64 {%r8, %r10}, %rd6;": lambda a, b: signed(a) * signed(b),
    "mad.wide.u32 %rd6, %r8, %r9, 5; mov.b64 {%r10, %r8}, %rd6;": lambda a, b: a * b + 5 >> 32,
    "div.s32 %r8, %r8, %r9;": lambda a, b: int(np.trunc(signed(a) / signed(b))),
    "div.u32 %r8, %r8, %r9;": lambda a, b: a // b,
    "rem.u32 %r8, %r8, %r9;": lambda a, b: a % b,
    "rem.s32 %r8, %r8, %r9;": lambda a, b: signed(a) - signed(b) * int(np.trunc(signed(a) / signed(b))),
    "and.b32 %r9, %r9, 63; shl.b32 %r8, %r8, %r9;": lambda a, b: a << (b & 63),
    "and.b32 %r9, %r9, 63; shr.u32 %r8, %r8, %r9;": lambda a, b: a >> (b & 63),
    "and.b32 %r9, %r9, 63; shr.s32 %r8, %r8, %r9;": lambda a, b: signed(a) >> (b & 63),
    "bfe.u32 %r8, %r8, 5, 9;": lambda a, b: a >> 5 & 511,
    "bfe.s32 %r8, %r8, 5, 9;": lambda a, b: (a >> 5 & 511) - (512 if a >> 13 & 1 else 0),
    "prmt.b32 %r8, %r8, %r9, 0x7250;": lambda a, b: bytes_of(a, b, 0x7250),
    "neg.s32 %r8, %r8; max.s32 %r8, %r8, %r9;": lambda a, b: max(signed(-a % 2**32), signed(b)),
    "min.u32 %r8, %r8, %r9; not.b32 %r8, %r8;": lambda a, b: ~min(a, b),
    "setp.lt.s32 %p1, %r8, %r9; selp.b32 %r8, %r8, %r9, %p1;": lambda a, b: min(signed(a), signed(b)),
    "setp.gt.u32 %p1, %r8, %r9; setp.gt.and.s32 %p2, %r8, 9, %p1; selp.b32 %r8, 1, 0, %p2;": lambda a, b: (
        a > b and signed(a) > 9
    ),
    "cvt.u16.u32 %rs1, %r8; cvt.s32.s16 %r8, %rs1;": lambda a, b: (a & 0xFFFF) - (0x10000 if a & 0x8000 else 0),
    "cvt.u16.u32 %rs1, %r8; cvt.s16.s8 %rs2, %rs1; cvt.u32.u16 %r8, %rs2;": lambda a, b: (
        (a & 0xFF) + (0xFF00 if a & 0x80 else 0)
    ),
    "cvt.rn.f32.s32 %r8, %r8;": lambda a, b: int(np.float32(signed(a)).view(np.uint32)),
    "cvt.rzi.s32.f32 %r8, %r8;": lambda a, b: truncated(a),
}


def truncated(bits: int) -> int:
    number = float(np.uint32(bits).view(np.float32))
    return 0 if number != number else int(np.trunc(min(max(number, -(2**31)), 2**31 - 1)))


@pytest.mark.parametrize("text", INSTRUCTIONS)
def test_integers(text, rng):
    """Random bits, small numbers and the extremes, as ``a`` in %r8 and ``b`` in %r9."""
    pool = np.r_[rng.integers(1, 2**32, 60), rng.integers(1, 40, 20), 2**31 - 1, 2**31, 2**32 - 1, 1].astype(np.uint32)
    a, b = rng.choice(pool, 128), rng.choice(pool, 128)
    b[(a == 2**31) & (b == 2**32 - 1)] = 3  # its quotient is no int32
    y = execute(LOAD, "ld.global.b32 %r9, [%rd5];", text, STORE, x=a, y=b.copy())
    expected = [INSTRUCTIONS[text](int(m), int(n)) % 2**32 for m, n in zip(a, b, strict=True)]
    np.testing.assert_array_equal(y, np.array(expected, np.uint32))


def test_floats(rng):
    """A comparison with NaN, a fused product, a sign, the roundings to tf32 and bf16."""
    a = np.r_[rng.standard_normal(126), np.nan, -0.0].astype(np.float32)
    y = execute(LOAD, "setp.lt.f32 %p1, %r8, 0f00000000;", "selp.b32 %r8, 1, 0, %p1;", STORE, x=a)
    np.testing.assert_array_equal(y, a < 0)
    y = execute(LOAD, "setp.geu.f32 %p1, %r8, 0f00000000;", "selp.b32 %r8, 1, 0, %p1;", STORE, x=a)
    np.testing.assert_array_equal(y, ~(a < 0))
    y = execute(LOAD, "fma.rn.f32 %r8, %r8, %r8, 0fBF800000;", STORE, x=a)
    np.testing.assert_array_equal(y.view(np.float32), (a.astype(np.float64) ** 2 - 1).astype(np.float32))
    y = execute(LOAD, "copysign.f32 %r8, %r8, 0f3F000000;", STORE, x=a)
    np.testing.assert_array_equal(y.view(np.float32), np.copysign(np.float32(0.5), a))
    tf32 = execute(LOAD, "cvt.rna.tf32.f32 %r8, %r8;", STORE, x=a).view(np.float32)
    np.testing.assert_allclose(tf32, a, rtol=2.0**-11, atol=0)
    assert not (tf32.view(np.uint32) & 0x1FFF)[:126].any()
    pairs = execute(LOAD, "cvt.rn.bf16x2.f32 %r8, %r8, 0f3F800000;", STORE, x=a)
    np.testing.assert_allclose((pairs & 0xFFFF0000).view(np.float32), a, rtol=2.0**-8, atol=0)
    assert (pairs & 0xFFFF == 0x3F80).all()


def test_across_a_warp():
    y = execute("shfl.sync.bfly.b32 %r8, %r4, 5, 31, -1;", STORE)
    np.testing.assert_array_equal(y, np.arange(128) ^ 5)
    y = execute("shfl.sync.idx.b32 %r8, %r4, 3, 31, -1;", STORE)
    np.testing.assert_array_equal(y, np.arange(128) // 32 * 32 + 3)
    y = execute("redux.sync.max.s32 %r8, %r4, -1;", STORE)
    np.testing.assert_array_equal(y, np.arange(128) // 32 * 32 + 31)


def test_matrices_of_shared_memory():
    """``ldmatrix`` of what ``stmatrix`` has stored, straight and transposed."""
    body = [
        "shl.b32 %r10, %r2, 4;",
        "and.b32 %r10, %r10, 127;",
        "shr.u32 %r11, %r2, 5;",
        "shl.b32 %r11, %r11, 7;",
        "add.s32 %r10, %r10, %r11;",
        "add.s32 %r10, %r10, %r5;",  # row lane % 8 of the warp's matrix of 128 bytes
        "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r10], {%r8};",
    ]
    halves = np.arange(256, dtype=np.uint16)  # two in each thread's word: four matrices of 8 x 8, of two blocks
    x = halves.view(np.uint32)
    y = execute(LOAD, *body, "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r8}, [%r10];", STORE, x=x)
    np.testing.assert_array_equal(y, x)
    y = execute(LOAD, *body, "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r8}, [%r10];", STORE, x=x)
    np.testing.assert_array_equal(y.view(np.uint16).reshape(4, 8, 8), halves.reshape(4, 8, 8).transpose(0, 2, 1))
