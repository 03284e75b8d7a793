/**
 * The panels, one row each: where they stand in the bar or the More menu, their title and shortcut follow from it.
 *
 * `key` describes the panel's key in the bar, as bar.js reads it; a panel without one is in the More menu. `title` is the name
 * of a text, `sign` that of an icon. `load` resolves to the panel's module (see panel.js).
 */
export const PANELS = {
  people: { title: 'people.title', shortcut: 'p', key: { wide: true, count: 'count count--wait' }, load: () => import('./people.js') },
  chat: { title: 'chat.title', shortcut: 'c', key: { count: 'count' }, load: () => import('./chat.js') },
  stats: { title: 'stats.title', shortcut: 'i', sign: 'pulse', load: () => import('./stats.js') },
};
