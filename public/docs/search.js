/** The search box: hides the routes that lack one of the words. `/` leads to it, Escape empties it. */

/**
 * @typedef {{ words: string, article: HTMLElement, entry: HTMLElement, heading: HTMLElement }} Found
 * @param {Found[]} routes
 */
export function searchable(routes) {
  const box = /** @type {HTMLInputElement} */ (document.getElementById('search'));
  const count = document.getElementById('count');
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/u).filter(Boolean);
    const headings = new Map(routes.map(({ heading }) => [heading, true]));
    let shown = 0;
    for (const { words: text, article, entry, heading } of routes) {
      const hit = words.every((word) => text.includes(word));
      article.hidden = entry.hidden = !hit;
      if (!hit) continue;
      headings.set(heading, false);
      shown += 1;
    }
    for (const [heading, hidden] of headings) heading.hidden = hidden;
    count.textContent = words.length ? `${shown} of ${routes.length} routes` : `${routes.length} routes`;
  };
  const clear = () => {
    box.value = '';
    filter();
  };
  box.addEventListener('input', filter);
  box.addEventListener('keydown', ({ key }) => key === 'Escape' && clear());
  document.addEventListener('keydown', (event) => {
    const typing = event.target instanceof Element && event.target.closest('input, textarea, select');
    if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
  addEventListener('hashchange', () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target?.hidden) return;
    clear();
    target.scrollIntoView();
  });
  filter();
}
