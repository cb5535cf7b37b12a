FROM alpine
CMD ["a", "b"]
ENTRYPOINT ["c"]
FROM alpine
CMD echo $HOME
ENTRYPOINT exec x
FROM alpine
ENTRYPOINT []
CMD []
FROM alpine
SHELL ["bash", "-c"]
CMD x
