// Rules for the page's modules in public/; run it from the project's folder.

import js from '@eslint/js';
import globals from 'globals';

const HTML = 'The page sets text, never HTML: use textContent.';
const PARSERS = ['innerHTML', 'outerHTML', 'insertAdjacentHTML', 'setHTMLUnsafe', 'createContextualFragment'];

// Globals of the browser that a forgotten variable would silently be.
const MISTAKEN = ['close', 'event', 'find', 'length', 'name', 'open', 'origin', 'parent', 'print', 'self', 'status', 'stop', 'top'];

export default [
  { ignores: ['public/ui/lean-qr.js'] }, // another project's, packed
  {
    files: ['public/**/*.js'],
    languageOptions: { ecmaVersion: 2024, sourceType: 'module', globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      ...js.configs.recommended.rules,
      eqeqeq: 'error',
      'no-redeclare': 'error',
      'no-restricted-globals': ['error', ...MISTAKEN],
      'no-restricted-properties': ['error', ...PARSERS.map((property) => ({ property, message: HTML })), { object: 'document', property: 'write', message: HTML }],
      'no-restricted-syntax': ['error', ...PARSERS.map((name) => ({ selector: `Property[key.name=${name}], Literal[value=${name}]`, message: HTML }))],
      'no-undef': 'error',
      'no-unused-vars': 'error',
      'no-var': 'error',
      'prefer-const': 'error',
    },
  },
];
