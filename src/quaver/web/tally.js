// What votes in a blind test say, and what chance says to them.

/** @typedef {{first: number, second: number, same: number, right: number, wrong: number}} Votes */

/** @returns {Votes} */
export function noVotes() {
  return { first: 0, second: 0, same: 0, right: 0, wrong: 0 };
}

/** Probability that of `n` throws of a fair coin `k` or more are heads. */
export function tail(k, n) {
  let mass = 0.5 ** n;
  let sum = 0;
  for (let heads = 0; heads <= n; heads++) {
    if (heads >= k) sum += mass;
    mass *= (n - heads) / (heads + 1);
  }
  return Math.min(1, sum);
}

/**
 * Which sounds better: two-sided, and "no difference" is no throw.
 * @param {Votes} votes @param {[string, string]} names
 */
export function preference({ first, second, same }, names) {
  const n = first + second;
  const lead = Math.max(first, second);
  const even = same ? `, ${same} without a difference` : "";
  const counts = `Sounds better: ${names[0]} ${first}, ${names[1]} ${second}${even}.`;
  if (first === second) return `${counts} Neither leads.`;
  const p = Math.min(1, 2 * tail(lead, n));
  const claim = `that ${names[first > second ? 0 : 1]} sounds better to you`;
  return `${counts} Were both alike, so clear a lead would come up in ${often(p)}: ${strength(p)} ${claim}.`;
}

/** Which is which: one-sided. @param {Votes} votes */
export function telling({ right, wrong }) {
  const n = right + wrong;
  const p = tail(right, n);
  const counts = `Told apart: ${right} of ${n} right. Guessing alone does as well in ${often(p)}`;
  return `${counts}: ${strength(p)} that you hear which is which.`;
}

function often(p) {
  if (p > 0.995) return "every such test";
  return `${p < 0.001 ? "less than 0.1" : (100 * p).toPrecision(2)} % of such tests`;
}

function strength(p) {
  if (p <= 0.01) return "strong evidence";
  return p <= 0.05 ? "some evidence" : "no evidence yet";
}
