declare module "*.txt" {
  const text: string;
  // biome-ignore lint/style/noDefaultExport: this is how the bundler hands over a text file
  export default text;
}
