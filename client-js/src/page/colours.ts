/** Colour means a person: nothing else on the page has one. */

/** Each carries white text at 4.5 : 1, and stands out on both the light and the dark sheet. */
export const PALETTE = [
  "#c2255c",
  "#6741d9",
  "#1864ab",
  "#0b7285",
  "#2b7a3d",
  "#a8500f",
  "#c92a2a",
  "#5c6b00",
  "#9c36b5",
  "#3b5bdb",
] as const;

export function colourOf(client: number): string {
  return PALETTE[client % PALETTE.length] ?? PALETTE[0];
}

/** A colour that nobody else has, while there is one. */
export function freeColour(taken: ReadonlySet<string>, client: number): string {
  const own = colourOf(client);
  return [own, ...PALETTE].find((colour) => !taken.has(colour)) ?? own;
}

/** Other programs may announce any colour; what is not six hexadecimal digits is replaced. */
export function safeColour(colour: unknown, client: number): string {
  return typeof colour === "string" && /^#[0-9a-f]{6}$/i.test(colour) ? colour : colourOf(client);
}

/** Black or white, whichever reads better on the colour (WCAG relative luminance). */
export function inkOn(colour: string): "#000" | "#fff" {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}
