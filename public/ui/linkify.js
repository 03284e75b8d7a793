/** Finds links in chat messages. No page elements. */

const LINK = /(?<![\p{L}\p{N}@./_-])(?:https?:\/\/|www\.(?=[\p{L}\p{N}]))[^\s<>"'`«»“”„‘’]+/giu;
const TAIL = /[.,;:!?…*_~]+$/u;
const BRACKETS = { ')': '(', ']': '[', '}': '{' };

/**
 * Splits a text into { text } and { text, href }. Only http and https URLs, and hosts that begin with `www.`, become links,
 * without trailing punctuation.
 */
export function parts(text) {
  const found = [];
  let done = 0;
  for (const { 0: match, index } of text.matchAll(LINK)) {
    const shown = trimmed(match);
    const href = address(shown);
    if (!href) continue;
    if (index > done) found.push({ text: text.slice(done, index) });
    found.push({ text: shown, href });
    done = index + shown.length;
  }
  if (done < text.length) found.push({ text: text.slice(done) });
  return found;
}

/** Removes trailing punctuation, and closing brackets that were not opened inside the link. */
function trimmed(link) {
  for (;;) {
    const shorter = link.replace(TAIL, '');
    const opening = BRACKETS[shorter.at(-1)];
    const closes = opening && shorter.split(opening).length < shorter.split(shorter.at(-1)).length;
    if (!closes) return shorter;
    link = shorter.slice(0, -1);
  }
}

function address(text) {
  try {
    const short = /^www\./i.test(text);
    const { href, protocol, hostname } = new URL(short ? `https://${text}` : text);
    const full = short ? hostname.split('.').length > 2 : hostname; // the browser knows no more than www.example
    return ['http:', 'https:'].includes(protocol) && full ? href : null;
  } catch {
    return null;
  }
}
