// Vectors of floats for one instruction set. span.cpp includes this file once for every instruction set, each time
// inside another namespace and with the code generation set for the instruction set. So there is no include guard.
//
// kLanes      floats in a vector
// kOutputs    output channels that a matrix product keeps in registers, for two vectors of tiles each

#if defined(DSCLORA_AVX512)

typedef __m512 Vector;
constexpr int kLanes = 16;
constexpr int kOutputs = 14;  // 28 sums + 2 inputs + 1 weight of 32 registers

INLINE Vector load(const float* from) { return _mm512_loadu_ps(from); }
INLINE void store(float* to, Vector v) { _mm512_storeu_ps(to, v); }
INLINE Vector splat(float value) { return _mm512_set1_ps(value); }
INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
INLINE Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
INLINE Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
INLINE Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }     // a * b + c
INLINE Vector fnma(Vector a, Vector b, Vector c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
INLINE Vector clamp(Vector v, Vector low, Vector high) { return _mm512_min_ps(_mm512_max_ps(v, low), high); }
INLINE Vector nearest(Vector v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// p * 2^n, for whole n from -126 to 127.
INLINE Vector times_power_of_two(Vector p, Vector n) { return _mm512_scalef_ps(p, n); }
INLINE void store_rounded(int32_t* to, Vector v) { _mm512_storeu_si512(to, _mm512_cvtps_epi32(v)); }
// Lanes of `v` moved up by one; the first lane is the last lane of `before`.
INLINE Vector from_before(Vector before, Vector v) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(v), _mm512_castps_si512(before), 15));
}
// Lanes of `v` moved down by one; the last lane is the first lane of `after`.
INLINE Vector from_after(Vector v, Vector after) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(after), _mm512_castps_si512(v), 1));
}

#elif defined(DSCLORA_AVX2)

typedef __m256 Vector;
constexpr int kLanes = 8;
constexpr int kOutputs = 6;  // 12 sums + 2 inputs + 1 weight of 16 registers

INLINE Vector load(const float* from) { return _mm256_loadu_ps(from); }
INLINE void store(float* to, Vector v) { _mm256_storeu_ps(to, v); }
INLINE Vector splat(float value) { return _mm256_set1_ps(value); }
INLINE Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
INLINE Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
INLINE Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
INLINE Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vector fnma(Vector a, Vector b, Vector c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE Vector clamp(Vector v, Vector low, Vector high) { return _mm256_min_ps(_mm256_max_ps(v, low), high); }
INLINE Vector nearest(Vector v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE Vector times_power_of_two(Vector p, Vector n) {
  __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}
INLINE void store_rounded(int32_t* to, Vector v) { _mm256_storeu_si256((__m256i*)to, _mm256_cvtps_epi32(v)); }
INLINE Vector from_before(Vector before, Vector v) {
  // alignr works inside halves of 128 bits, so the middle is brought next to both halves before.
  __m256 middle = _mm256_permute2f128_ps(before, v, 0x21);  // high half of `before`, low half of `v`
  return _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(v), _mm256_castps_si256(middle), 12));
}
INLINE Vector from_after(Vector v, Vector after) {
  __m256 middle = _mm256_permute2f128_ps(v, after, 0x21);
  return _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(middle), _mm256_castps_si256(v), 4));
}

#elif defined(DSCLORA_NEON)

typedef float32x4_t Vector;
constexpr int kLanes = 4;
constexpr int kOutputs = 13;  // 26 sums + 2 inputs + 1 weight of 32 registers

INLINE Vector load(const float* from) { return vld1q_f32(from); }
INLINE void store(float* to, Vector v) { vst1q_f32(to, v); }
INLINE Vector splat(float value) { return vdupq_n_f32(value); }
INLINE Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
INLINE Vector sub(Vector a, Vector b) { return vsubq_f32(a, b); }
INLINE Vector mul(Vector a, Vector b) { return vmulq_f32(a, b); }
INLINE Vector div(Vector a, Vector b) { return vdivq_f32(a, b); }
INLINE Vector fma(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
INLINE Vector fnma(Vector a, Vector b, Vector c) { return vfmsq_f32(c, a, b); }
INLINE Vector clamp(Vector v, Vector low, Vector high) { return vminq_f32(vmaxq_f32(v, low), high); }
INLINE Vector nearest(Vector v) { return vrndnq_f32(v); }
INLINE Vector times_power_of_two(Vector p, Vector n) {
  int32x4_t exponent = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent));
}
INLINE void store_rounded(int32_t* to, Vector v) { vst1q_s32(to, vcvtnq_s32_f32(v)); }
INLINE Vector from_before(Vector before, Vector v) { return vextq_f32(before, v, 3); }
INLINE Vector from_after(Vector v, Vector after) { return vextq_f32(v, after, 1); }

#else  // portable: vectors of GCC and Clang, which every CPU has or imitates

typedef float Vector __attribute__((vector_size(16)));
typedef int32_t Integers __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kOutputs = 6;

INLINE Vector load(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
INLINE void store(float* to, Vector v) { __builtin_memcpy(to, &v, sizeof v); }
INLINE Vector splat(float value) { return Vector{value, value, value, value}; }
INLINE Vector add(Vector a, Vector b) { return a + b; }
INLINE Vector sub(Vector a, Vector b) { return a - b; }
INLINE Vector mul(Vector a, Vector b) { return a * b; }
INLINE Vector div(Vector a, Vector b) { return a / b; }
INLINE Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
INLINE Vector fnma(Vector a, Vector b, Vector c) { return c - a * b; }
INLINE Vector choose(Integers which, Vector yes, Vector no) {
  return (Vector)((which & (Integers)yes) | (~which & (Integers)no));
}
INLINE Vector clamp(Vector v, Vector low, Vector high) {
  v = choose(v > low, v, low);  // NaN becomes `low`, as on x86
  return choose(v < high, v, high);
}
// Adding 1.5 * 2^23 leaves no bits for fractions, and the low bits of the sum are the whole number.
constexpr float kRounding = 12582912.0f;
// -ffast-math would cancel the two sums: never build with it.
INLINE Vector nearest(Vector v) { return (v + splat(kRounding)) - splat(kRounding); }
INLINE Integers whole(Vector v) { return (Integers)(v + splat(kRounding)) - (Integers)splat(kRounding); }
INLINE Vector times_power_of_two(Vector p, Vector n) { return (Vector)((Integers)p + whole(n) * (1 << 23)); }
INLINE void store_rounded(int32_t* to, Vector v) {
  Integers i = whole(v);
  __builtin_memcpy(to, &i, sizeof i);
}
INLINE Vector from_before(Vector before, Vector v) { return Vector{before[3], v[0], v[1], v[2]}; }
INLINE Vector from_after(Vector v, Vector after) { return Vector{v[1], v[2], v[3], after[0]}; }

#endif
