# check=skip=JSONArgsRecommended, MultipleInstructionsDisallowed
FROM alpine
CMD y
CMD z
WORKDIR x
