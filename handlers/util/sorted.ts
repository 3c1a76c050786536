/** Where an item stands, or would stand, in a list that is sorted by name. */
export function placeOf(list: readonly { name: string }[], name: string): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].name < name) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Compares two items by name. */
export function byName(a: { name: string }, b: { name: string }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
