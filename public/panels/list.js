/**
 * The panels, one row each. The bar, the More menu, the shortcuts and their list are built from these rows.
 *
 * `key` describes the panel's button in the bar (see bar.js); a panel without one is in the More menu. `title` is the key of a
 * text, `sign` the name of an icon. `load` imports the panel's module (see panel.js).
 */
export const PANELS = {
  people: { title: 'people.title', shortcut: 'p', key: { wide: true, count: 'count count--wait' }, load: () => import('./people.js') },
  chat: { title: 'chat.title', shortcut: 'c', key: { count: 'count' }, load: () => import('./chat.js') },
  stats: { title: 'stats.title', shortcut: 'i', sign: 'pulse', load: () => import('./stats.js') },
};
