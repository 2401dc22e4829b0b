// SPDX-License-Identifier: MIT
// Between OpenMM's arrays of all particles and a row of some of them. NUM_MOVED is the number of these, slots are where the
// arrays have them; a row has the precision of mixed, and the coordinates of the arrays, as they are wrapped.

KERNEL void gatherPositions(GLOBAL const int* RESTRICT slots, GLOBAL mixed* RESTRICT row, GLOBAL const real4* RESTRICT posq
#ifdef USE_MIXED_PRECISION
        , GLOBAL const real4* RESTRICT posqCorrection
#endif
        ) {
    for (int i = GLOBAL_ID; i < NUM_MOVED; i += GLOBAL_SIZE) {
        const real4 p = posq[slots[i]];
        mixed x = p.x, y = p.y, z = p.z;
#ifdef USE_MIXED_PRECISION
        const real4 correction = posqCorrection[slots[i]];
        x += correction.x;
        y += correction.y;
        z += correction.z;
#endif
        row[3*i] = x;
        row[3*i+1] = y;
        row[3*i+2] = z;
    }
}

// w, the charge, stays.
KERNEL void scatterPositions(GLOBAL const int* RESTRICT slots, GLOBAL const mixed* RESTRICT row, GLOBAL real4* RESTRICT posq
#ifdef USE_MIXED_PRECISION
        , GLOBAL real4* RESTRICT posqCorrection
#endif
        ) {
    for (int i = GLOBAL_ID; i < NUM_MOVED; i += GLOBAL_SIZE) {
        const mixed x = row[3*i], y = row[3*i+1], z = row[3*i+2];
        real4 p = posq[slots[i]];
        p.x = (real) x;
        p.y = (real) y;
        p.z = (real) z;
        posq[slots[i]] = p;
#ifdef USE_MIXED_PRECISION
        posqCorrection[slots[i]] = make_real4((real) (x-p.x), (real) (y-p.y), (real) (z-p.z), 0);
#endif
    }
}

// Forces are 64 bit fixed point.
KERNEL void gatherForces(GLOBAL const int* RESTRICT slots, GLOBAL mixed* RESTRICT row, GLOBAL const mm_long* RESTRICT forceBuffers) {
    const mixed scale = 1/(mixed) 0x100000000;
    for (int i = GLOBAL_ID; i < NUM_MOVED; i += GLOBAL_SIZE)
        for (int k = 0; k < 3; k++)
            row[3*i+k] = scale*forceBuffers[slots[i]+k*PADDED_NUM_ATOMS];
}

// Other queues may be adding forces at the same time.
KERNEL void addForces(GLOBAL const int* RESTRICT slots, GLOBAL const mixed* RESTRICT row, GLOBAL mm_ulong* RESTRICT forceBuffers) {
    for (int i = GLOBAL_ID; i < NUM_MOVED; i += GLOBAL_SIZE)
        for (int k = 0; k < 3; k++)
            ATOMIC_ADD(&forceBuffers[slots[i]+k*PADDED_NUM_ATOMS], (mm_ulong) realToFixedPoint((real) row[3*i+k]));
}
