// SPDX-License-Identifier: MIT
// Compiled only to make the precompiled header that all stages share.
