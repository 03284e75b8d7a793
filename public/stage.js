export { Tiles as Stage } from './tiles.js';
