// What the controls are called, and what each view shows: one line, and what to look for.
export const LABELS = {
  filter: "filter", cuts: "cut-offs", order: "order", keep_dc: "keep DC", layer: "block", domains: "domains", domain: "domain shown", reference: "compared with",
  image: "image", scale: "scale", cells: "cells", coefficient: "coefficient", views: "views", model: "model", against: "and model",
  disturbed: "disturbed by", severity: "severity", twin: "undisturbed twin", patch_mode: "patch", patch_band: "band",
};
const CAPTIONS = {
  curves: "Grey, above the dashed gain, is removed. Look for domains whose curves separate.",
  plane: "Dark is removed.",
  zones: "Look for rows that differ; click a cell, or use the arrow keys, to go there.",
  features: "Kept and removed add up to the picture before; grey is zero. Look for what the scene loses, and for outliers.",
  difference: "Look for colour that stays on the right: a difference that the filter removes. Click a coefficient to see its pattern.",
  coefficient: "The pattern of the chosen coefficient, and its energy by block and domain; dotted: the block shown.",
  segmentation: "One image with the features as they are, and filtered. Look for classes that fall with the removed band.",
  iou: "IoU filtered minus unfiltered, over all images of a domain. Negative: the model relies on what was removed.",
  words: "What the first screen shows of the block, domain by domain.",
  information: "Look for bands that tell the domain and not the class. Shaded: the filter. The control has nothing to find.",
  outliers: "Tokens far above their image's median norm, with the filter named above; Measure takes the one that is set.",
  measure: "What does each band tell, the domain or the class? And which tokens stand out? Linear probes, seconds to minutes.",
  cause: "One band of the twin's features takes the place of the disturbed image's own. Complete: in the block's output and in all that the head reads "
    + "of earlier blocks, so the patch cannot be bypassed. Stream only: in the block's output alone, which shows how far an effect travels.",
  map: "Mean of both directions (●: the twin's band put into the disturbed image; ○: the disturbed band put into the twin), with 95% intervals over images. "
    + "▲: more than random coefficients of equal energy. Click a cell, or use the arrow keys, to see it above.",
};
export const captionOf = ({ staged, stage }, view) => CAPTIONS[view] + (!staged ? "" : { segmentation: ` The filter works at stage ${stage} alone.`,
  measure: " Outlying tokens are not measured: they are those of transformers, and this model has stages." }[view] ?? "");
